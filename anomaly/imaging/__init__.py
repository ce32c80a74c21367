"""Images: found, decoded, masked; colours of heatmaps."""
