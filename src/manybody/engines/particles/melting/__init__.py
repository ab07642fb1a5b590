"""Crystal and liquid of Lennard-Jones particles in one box: where they coexist is the melting point."""
