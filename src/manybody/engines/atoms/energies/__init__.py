"""Energy models that engines bring: ASE calculators, embedded atoms, and sums of two models."""
