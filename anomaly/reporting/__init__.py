"""Sentences, reports and charts."""
