"""Fields that advection and diffusion carry: one problem that is split over nodes."""
