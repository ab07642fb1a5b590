"""Contract suites, shipped: every engine, check and backend passes its own."""
