# Users are where Dovecot's own passdb proxies them: to a backend by its address,
# or to any other server in these networks.
listener "main" {
  address = "127.0.0.1:24245"
}

client "doveadm" {
  password_file = "/etc/doveadm-proxy/secrets/doveadm"
}

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

route "dovecot-auth" {
  socket   = "/run/dovecot/auth-userdb"
  networks = ["10.0.1.0/24"]
}

# Whom the passdb does not know.
route "match" {
  users = ["*@old.example"]
  shard = "s1"
}
