"""How good are translations? Metrics, comparisons, plots and the HTML report."""
