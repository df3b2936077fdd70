# Two shards and users who are moved between them: several proxies share the
# database of the moves block. See docs/moving-users.md.

listener "main" {
  address = "127.0.0.1:24245"
}

client "doveadm" {
  password_file = "/etc/doveadm-proxy/secrets/doveadm"
}

# "user migrate" has the backends copy from one to the other, so all have the
# same doveadm_password.
backend_defaults {
  password_file = "/etc/doveadm-proxy/secrets/backends"
}

shard "s1" {
  backend "mail1" {
    address = "10.0.1.1:24245"
  }
}

shard "s2" {
  backend "mail2" {
    address = "10.0.1.2:24245"
  }
}

route "ring" {}

# Without driver and dsn: a file on this machine, for one proxy.
moves {
  driver = "mysql"
  dsn    = "proxy:secret@tcp(db.example.com:3306)/doveadm_proxy"
  name   = "proxy1"
}

# "doveadm-proxy user move" and the others talk to this.
admin {}
