# Secrets that systemd hands to the service (LoadCredential=), so that no file
# with one has to be readable for the proxy's user. The lines for the unit are
# in systemd/credentials.conf beside this file.

listener "main" {
  address = "0.0.0.0:24246"
  tls {
    cert_file = "/etc/doveadm-proxy/tls/proxy.crt"
    key_file  = "credential:proxy.key"
    mode      = "starttls-required"
  }
}

client "doveadm" {
  password_file = "credential:doveadm"
}

backend_defaults {
  password_file = "credential:backends"
}

shard "s1" {
  backend "mail1" {
    address = "10.0.1.1:24245"
  }
}
