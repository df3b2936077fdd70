# A control panel, a backup job and the operators, each with the rights that
# they need and no more. docs/rights.md explains them.
#
# See what a client may do, and why, without a running daemon:
#
#   doveadm-proxy explain --config panel.hcl --client panel --from 10.1.0.5 \
#     alice@example.com mailbox create Archive
#
# The expectations of panel.expect hold for this file; have CI say so before
# a change goes live:
#
#   doveadm-proxy check --config panel.hcl --simulate panel.expect

listener "network" {
  address = "0.0.0.0:24246"
  tls {
    cert_file      = "/etc/doveadm-proxy/tls/proxy.crt"
    key_file       = "/etc/doveadm-proxy/tls/proxy.key"
    client_ca_file = "/etc/doveadm-proxy/tls/ca.crt"
  }
}

listener "local" {
  address = "unix:/run/doveadm-proxy/doveadm.sock"
  mode    = "0666"
}

# The panel can only say "doveadm", as the jobs can; it is known by its network.
client "panel" {
  username      = "doveadm"
  networks      = ["10.1.0.0/16"]
  password_file = "/etc/doveadm-proxy/secrets/panel"

  # It manages the mailboxes of its customers, whose domains stand in a file,
  # and does not read their mail.
  allow {
    commands   = ["read", "mailbox create", "mailbox delete", "mailbox rename", "sieve put", "sieve activate"]
    users_file = "/etc/doveadm-proxy/panel.users"
  }

  # Their quota it may also recompute.
  allow {
    commands   = ["quota *"]
    users_file = "/etc/doveadm-proxy/panel.users"
  }

  # Nobody's business but their own.
  deny {
    users = ["postmaster@*", "abuse@*"]
  }
}

# "doveadm backup -R -u USER tcps:proxy:24246" on the backup server, which is
# known by its certificate and needs no password.
client "backup" {
  tls_san = ["dns:backup.example.com"]
  allow {
    commands = ["dsync-server"]
  }
  max_sessions = 8
  priority     = "bulk"
}

# Root on this machine may do everything, also what opens files of a backend,
# but nothing whose effect this version does not know.
client "root" {
  unix_users = ["root"]
  allow {
    commands  = ["*", "admin"]
    dangerous = ["files", "hosts", "users"]
  }
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

route "match" {
  users = ["*@example.com"]
  shard = "s1"
}

route "match" {
  users = ["*@example.org"]
  shard = "s2"
}
