"""What runs: store, projections, carriers, scheduler, command line, web. Everything that touches the world."""
