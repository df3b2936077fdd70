# One Dovecot server behind the proxy.
#
# Check this file before you use it, and see what the defaults add to it:
#
#   doveadm-proxy check --config /etc/doveadm-proxy/proxy.hcl
#   doveadm-proxy check --config /etc/doveadm-proxy/proxy.hcl --print

# Where clients connect, for example:
#
#   doveadm -o doveadm_password=PASSWORD quota get -u user@example.com -S 127.0.0.1:24245
#
# Clients on other hosts need TLS: see tls.hcl.
listener "main" {
  address = "127.0.0.1:24245"
}

# Who may log in. "doveadm" is the user name that the doveadm command uses if
# doveadm_username is not set. The file holds the one line that this prints:
#
#   doveadm-proxy hash
client "doveadm" {
  password_file = "/etc/doveadm-proxy/secrets/doveadm"
}

# Root on this machine needs no password: who may write to the socket is let in.
listener "local" {
  address = "unix:/run/doveadm-proxy/doveadm.sock"
  mode    = "0600"
  client  = "doveadm"
}

# The Dovecot server. On its side:
#
#   doveadm_password = ...
#   service doveadm {
#     inet_listener {
#       port = 24245
#     }
#   }
#
# The file holds the same password, in clear text, readable by the proxy alone:
#
#   install -o root -g doveadm-proxy -m 0640 /dev/stdin /etc/doveadm-proxy/secrets/backends
shard "mail" {
  backend "mail1" {
    address       = "10.0.1.1:24245"
    password_file = "/etc/doveadm-proxy/secrets/backends"
  }
}

# One shard gets every user: no route is needed.
