# In the place of a Dovecot 2.3 director: every user stays on the mail server
# that the director chose, without a table and without moving a mailbox.
# docs/migrating-from-director.md has the way there; later on this tells whom a
# change of the ring would move:
#
#   doveadm-proxy ring diff old.hcl new.hcl

listener "main" {
  address = "127.0.0.1:24246"
}

client "doveadm" {
  password_file = "/etc/doveadm-proxy/secrets/doveadm"
}

backend_defaults {
  password_file = "/etc/doveadm-proxy/secrets/backends"
}

# The director hashes a user as auth_username_format has made him.
router {
  username_format = "%Lu"
}

shard "mail1" {
  backend "mail1" { address = "10.0.1.1:24245" }
}
shard "mail2" {
  backend "mail2" { address = "10.0.1.2:24245" }
}
# New hardware with another address: the ring knows it by the old one, below.
shard "mail3" {
  backend "mail3" { address = "10.0.2.3:24245" }
}

# Users whom "doveadm director move" put elsewhere come before the ring.
route "file" {
  path = "/etc/doveadm-proxy/moved.map"
}

# As "doveadm director status" shows it.
route "ring" {
  algorithm     = "director"
  username_hash = "%Lu"

  server "10.0.1.1" {}
  server "10.0.1.2" {
    vhosts = 50
  }
  server "10.0.1.3" {
    shard = "mail3"
  }
}
