"""Training: reads prepared sets, writes bundles; resumable and seeded."""
