# A cluster: the users are spread over three shards, one of which has two
# servers for the same mail.
#
# Which shard a user is on, and why, without a running proxy:
#
#   doveadm-proxy route --config /etc/doveadm-proxy/proxy.hcl user@example.com

log {
  level  = "info"
  format = "json"
}

# Clients on other hosts have to use TLS; see tls.hcl for more of it.
listener "main" {
  address = "10.0.0.10:24246"
  tls {
    cert_file = "/etc/doveadm-proxy/tls/proxy.crt"
    key_file  = "/etc/doveadm-proxy/tls/proxy.key"
  }
}

# For scripts on this machine, without a password.
listener "local" {
  address = "unix:/run/doveadm-proxy/doveadm.sock"
  mode    = "0660"
  client  = "operator"
}

# Each of those who log in has a name and a password of its own, so that the log
# tells them apart and one of them can be changed alone. The files hold what
# "doveadm-proxy hash" prints.
client "doveadm" {
  password_file = "/etc/doveadm-proxy/secrets/doveadm"
}

# This one comes from the environment of the service, for example from a line
# PANEL_PASSWORD_HASH={ARGON2ID}... in the EnvironmentFile= of its systemd unit.
client "panel" {
  password = env("PANEL_PASSWORD_HASH")
}

client "operator" {
  password_file = "/etc/doveadm-proxy/secrets/operator"
}

# What all backends have in common.
backend_defaults {
  username      = "doveadm"
  password_file = "/etc/doveadm-proxy/secrets/backends"

  # Every open connection occupies one process of the doveadm service of the
  # backend, and Dovecot starts 100 of them at most, for all proxies together.
  # With two proxies, 16 connections of each leave 68 for others.
  pool {
    max_open        = 16
    max_idle        = 4
    acquire_timeout = "10s"
  }

  # A backend that is down is asked again after 10 seconds. Until then its users
  # get a temporary failure at once, and nobody else notices.
  breaker {
    failures = 5
    open     = "10s"
  }

  # Whether a backend works is looked at also when nobody uses it.
  health_check {
    interval = "10s"
  }

  timeouts {
    connect   = "2s"
    handshake = "5s"
  }
}

shard "s1" {
  backend "mail1" {
    address = "10.0.1.1:24245"
  }
}

# Both serve the same mail; mail2b is used when mail2a cannot be.
shard "s2" {
  backend "mail2a" {
    address = "10.0.1.2:24245"
  }
  backend "mail2b" {
    address = "10.0.2.2:24245"
    standby = true
  }
}

# A larger machine, with a password of its own.
shard "s3" {
  backend "mail3" {
    address  = "10.0.1.3:24245"
    password = file("/etc/doveadm-proxy/secrets/mail3")
    pool {
      max_open = 48
    }
  }
}

# Routes are asked in this order; the first that names a shard decides.

# Users who were moved by hand: "user shard" on each line of the file.
route "file" {
  path = "/etc/doveadm-proxy/users.map"
}

# Whole domains.
route "match" {
  users = ["*@sales.example", "*@support.example"]
  shard = "s3"
}

# Everybody else, spread evenly by a hash of the user name.
route "ring" {
  shards = ["s1", "s2"]
}

limits {
  max_sessions  = 4000
  drain_timeout = "1m"
}

# For "doveadm-proxy backends", "drain mail2a" and the like, as root or as the
# proxy's user. What an operator wants outlives a restart.
admin {}
