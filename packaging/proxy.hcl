# doveadm-proxy: this is the default of the package, which reaches no backend yet.
#
# Write the real one, with comments and secrets, by answering some questions:
#
#   doveadm-proxy init
#
# or from a Dovecot director: doveadm-proxy import. Both replace this file as long
# as nobody has changed it. Then
#
#   doveadm-proxy check --connect --config /etc/doveadm-proxy
#   systemctl reload doveadm-proxy
#
# Every block and attribute: doveadm-proxy.hcl(5). More: /usr/share/doc/doveadm-proxy.

# Only root on this machine may use it, without a password.
listener "local" {
  address = "unix:/run/doveadm-proxy/doveadm.sock"
  mode    = "0666"
}

client "root" {
  unix_users = ["root"]
}

shard "s1" {
  backend "mail1" {
    address  = "127.0.0.1:24245"
    password = "to be replaced by the doveadm_password of the backend"
  }
}

# For "doveadm-proxy status", "backends", "drain" and the like, as root.
admin {}
