"""The commands of `kpd`, one module each."""
