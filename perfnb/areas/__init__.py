"""One package an area, one module a topic: measures, thresholds and the checks that judge them, side by side."""
