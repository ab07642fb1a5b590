"""The nodes, and the backends that reach them."""
