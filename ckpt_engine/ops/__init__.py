"""What the engine does inside a transaction, one module per concern; not public."""
