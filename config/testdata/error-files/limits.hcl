level = "info" # ERROR: Unknown attribute level
log = {} # ERROR: log is a block
audit { # ERROR: No path
  on_error = "ignore" # ERROR: Wrong value of on_error
}
admin {
  address = "0.0.0.0:9124" # ERROR: Admin endpoint open to other hosts
  mode    = "0600" # ERROR: mode without a UNIX socket
  users   = ["root"] # ERROR: Unknown attribute users
}
admin { # ERROR: Second admin block
}
router "main" { # ERROR: Label not allowed
}
limit { # ERROR: Unknown block limit
}
limits {
  max_sessions      = 0 # ERROR: Wrong value of max_sessions
  handshake_timeout = "0s" # ERROR: Wrong value of handshake_timeout
  idle_timeout      = "0s"
  write_timeout     = "0" # ERROR: Wrong value of write_timeout
  drain_timeout     = "" # ERROR: Wrong value of drain_timeout
  overlap_timeout   = "0s" # ERROR: Wrong value of overlap_timeout
  max_spool         = "10GB" # ERROR: Wrong value of max_spool
  spool_dir         = "no/such/directory" # ERROR: Path not usable
  max_input         = 5 # ERROR: Wrong value of max_input
  input_timeout     = "x" # ERROR: Wrong value of input_timeout
}
limits "a" { # ERROR: Second limits block
}
log "x" { # ERROR: Label not allowed
  format = "xml" # ERROR: Wrong value of format
}
log { # ERROR: Second log block
}
backend_defaults {
  username = "a\tb" # ERROR: Wrong value of username
  password = "x"
  address  = "10.0.0.1:24245" # ERROR: Unknown attribute address
}
backend_defaults { # ERROR: Second backend_defaults block
}
referrals {
  networks = ["10.0.0.0/8", "10.0.0.1"] # ERROR: Wrong value of networks
  max_hops = -1 # ERROR: Wrong value of max_hops
}
listener "main" {
  address = "127.0.0.1:24245"
}
client "c" {
  password = "{PLAIN}x"
}
shard "s" {
  backend "b" {
    address = "10.0.0.1:1"
  }
}
