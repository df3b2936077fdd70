listener "main" {
  address = "127.0.0.1:24245"
}
client "c" {
  password = "{PLAIN}x"
}
backend_defaults {
  password = "x"
  pool {
    max_open        = 0 # ERROR: Wrong value of max_open
    max_idle        = 6
    min_idle        = 7 # ERROR: min_idle is larger than max_idle
    idle_timeout    = "30" # ERROR: Wrong value of idle_timeout
    max_lifetime    = "-5m" # ERROR: Wrong value of max_lifetime
    max_commands    = "many" # ERROR: Wrong value of max_commands
    acquire_timeout = "1d" # ERROR: Wrong value of acquire_timeout
    max_waiting     = 1.5 # ERROR: Wrong value of max_waiting
    max_bulk        = 9 # ERROR: max_bulk is larger than max_open
    max_opne        = 8 # ERROR: Unknown attribute max_opne
  }
  breaker {
    failures = 0 # ERROR: Wrong value of failures
    open     = "0s" # ERROR: Wrong value of open
    probes   = 99999999999 # ERROR: Wrong value of probes
  }
  breaker { # ERROR: Second breaker block
    failures = 3
  }
  timeouts {
    connect   = null # ERROR: Wrong value of connect
    handshake = ["5s"] # ERROR: Wrong value of handshake
    reply     = true # ERROR: Wrong value of reply
    write     = "0s"
  }
}
# Only what a backend says itself is reported of it.
shard "s" {
  backend "b1" {
    address = "10.0.0.1:1"
  }
  backend "b2" {
    address = "10.0.0.2:1"
    pool {
      max_open = 2 # ERROR: max_idle is larger than max_open
      max_bulk = 2
      min_idle = 0
    }
  }
}
