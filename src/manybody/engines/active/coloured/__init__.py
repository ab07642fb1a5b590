"""Active Ornstein-Uhlenbeck particles: disks in a plane that coloured noise propels."""
