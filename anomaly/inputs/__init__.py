"""What there is to read: folders, archives, manifests, addresses, and the labels that they give."""
