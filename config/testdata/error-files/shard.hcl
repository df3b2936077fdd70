listener "main" {
  address = "127.0.0.1:24245"
}
client "c" {
  password = "{PLAIN}x"
}
shard "s1" {
  backend "b1" { # ERROR: No password
    address = "10.0.0.1:1"
  }
  backend "b2" { # ERROR: No address
    password = "x"
  }
  backend "b3" {
    address  = "10.0.0.1:1" # ERROR: Address used twice
    password = "x"
    standby  = "yes" # ERROR: Wrong value of standby
    health_check {
      interval = 10 # ERROR: Wrong value of interval
      timeout  = "0s" # ERROR: Wrong value of timeout
      fall     = 0 # ERROR: Wrong value of fall
      rise     = "no" # ERROR: Wrong value of rise
      command  = "who" # ERROR: Unknown attribute command
    }
  }
  balance    = "random" # ERROR: Wrong value of balance
  slow_start = 30 # ERROR: Wrong value of slow_start
  pool {} # ERROR: Unknown block pool
}
shard "s2" {
  backend "b4" {
    address  = "10.0.0.1:1" # WARNING: Address used in two shards
    username = "" # ERROR: Wrong value of username
    password = "x"
    max_open = 1 # ERROR: Unknown attribute max_open
    pool     = {} # ERROR: pool is a block
    address {} # ERROR: address is an attribute
  }
  backend "b1" { # ERROR: Second backend "b1"
    address  = ":24245" # ERROR: Wrong value of address
    password = "x"
  }
  backend "b5" {
    address  = "unix:/run/dovecot/doveadm" # ERROR: Wrong value of address
    password = "x"
  }
  backend "b6" {
    address  = "mail6:0" # ERROR: Wrong value of address
    password = "x"
  }
  backend "b7" {
    address  = "mail 7:24245" # ERROR: Wrong value of address
    password = "x"
  }
}
shard "s2" { # ERROR: Second shard "s2" # ERROR: No backend
}
route "ring" {}
