"""Scoring of many images: batch, watch, cluster, units of several views, several products."""
