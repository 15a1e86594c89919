"""The per-user streaming proxy: HTTP/1.1 on one side, the bridges' tunnels on the other."""
