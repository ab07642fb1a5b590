"""Learning: models of physics, what they are trained on, and their losses. How many train one is `federate`'s matter."""
