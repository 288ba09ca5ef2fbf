"""From device to epochs: sources of EEG, causal filters, ring buffer, epochs."""
