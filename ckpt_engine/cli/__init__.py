"""The ``ckpt`` command."""
