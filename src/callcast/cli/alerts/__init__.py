"""``callcast alerts``: rules for Prometheus and a dashboard for Grafana, from our own names."""
