# EOF ERROR: No listener
# EOF ERROR: No client
# EOF ERROR: No shard
