"""The simulator: the real nodes' code under simulated time, links, power, clocks, operators. Begin with `story.run`."""
