"""Figures of the scale model: docs/results.md, part by part, by one command."""
