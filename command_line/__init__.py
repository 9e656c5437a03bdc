"""What stands between a shell and the stages: quoting, help, errors, sweeps."""
