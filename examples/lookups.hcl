# Users by what the operator has already: a database, a directory, a service.
# Routes are asked in this order; one that does not know the user leaves it to
# the next. A lookup that fails is answered with a temporary failure, and no other
# route is asked. See docs/routing.md.

listener "main" {
  address = "127.0.0.1:24245"
}

client "doveadm" {
  password_file = "/etc/doveadm-proxy/secrets/doveadm"
  allow {}
}

backend_defaults {
  password_file = "/etc/doveadm-proxy/secrets/backends"
}

shard "s1" {
  backend "mail1" { address = "10.0.1.1:24245" }
}
shard "s2" {
  backend "mail2" { address = "10.0.1.2:24245" }
}

# PostgreSQL. Moves are notified, so answers may be kept for long: in the
# database, "NOTIFY mailbox_moved, 'alice@example.com'" behind each UPDATE, or a
# trigger that does it.
route "sql" {
  driver  = "postgres"
  dsn     = file("/etc/doveadm-proxy/secrets/route-db")
  query   = "SELECT shard FROM mailbox WHERE username = $1"
  channel = "mailbox_moved"
  timeout = "1s"
  cache {
    ttl   = "10m"
    stale = "12h"
  }
}

# A directory.
route "ldap" {
  url                = "ldap://ldap.example.com"
  starttls           = true
  ca_file            = "/etc/doveadm-proxy/tls/ca.crt"
  bind_dn            = "cn=proxy,dc=example,dc=com"
  bind_password_file = "/etc/doveadm-proxy/secrets/ldap"
  base               = "ou=people,dc=example,dc=com"
  filter             = "(&(objectClass=inetOrgPerson)(mail=%u))"
  attribute          = "mailHost"
}

# A service of one's own: GET https://users.example.com/v1/users/alice%40example.com
# answers {"user":{"shard":"s1"}}, or with the status 404.
route "http" {
  url          = "https://users.example.com/v1/users/%u"
  headers_file = "/etc/doveadm-proxy/secrets/users-api"
  field        = "user.shard"
}

# Who is nowhere else.
route "ring" {}
