"""What the chart makes of its values, beyond what overlays and chart have in common."""
