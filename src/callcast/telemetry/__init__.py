"""What is told to the outside: OpenTelemetry spans and metrics, propagation, log lines."""
