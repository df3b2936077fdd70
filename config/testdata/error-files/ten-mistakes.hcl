# Ten different mistakes, each on a line of its own.
log {
  level = "chatty" # ERROR: Wrong value of level
}

listener "main" {
  adress = "127.0.0.1:24245" # ERROR: Unknown attribute adress
  address = "127.0.0.1:24245"
}

listener "local" {
  address = "unix:/run/doveadm-proxy/doveadm.sock"
  client  = "oprator" # ERROR: Unknown client "oprator"
}

client "operator" {
  password = "{MD5}XXqcVf8VpM3pqbXkTmW8uQ==" # ERROR: Password scheme refused
}

backend_defaults {
  password = "x"
  pool {
    max_open     = 4
    max_idle     = 8 # ERROR: max_idle is larger than max_open
    idle_timeout = 30 # ERROR: Wrong value of idle_timeout
  }
  tls {
    mode = "yes" # ERROR: Wrong value of mode
  }
}

shard "s1" {
  backend "mail1" {
    address = "10.0.1.1" # ERROR: Wrong value of address
  }
}

shard "s2" {
  backend "mail1" { # ERROR: Second backend "mail1"
    address = "10.0.1.2:24245"
  }
}

route "match" {
  users = ["*@sales.example"]
  shard = "s3" # ERROR: Unknown shard "s3"
}

route "ring" {}
