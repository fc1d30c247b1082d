"""The databases that checkpoints can be kept in; chosen by URL in :mod:`ckpt_engine.quickstart`."""
