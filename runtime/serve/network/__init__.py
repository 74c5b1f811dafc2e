"""Ways between a visitor and the server that are not one straight line: relays, proxies, firewalls."""
