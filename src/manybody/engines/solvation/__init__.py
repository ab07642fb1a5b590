"""One particle coupled to a liquid: its free energy of solvation along windows of a coupling."""
