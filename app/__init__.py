"""Composition: processes, transport, settings and the command line."""
