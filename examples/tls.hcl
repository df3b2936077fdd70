# Everything encrypted and verified: the clients' connections and those to the
# backends.
#
# The certificates may be renewed in place. New connections use the new ones
# within a second; a file that cannot be used is reported in the log and the last
# good one stays.

# Clients that begin with TLS. The doveadm command as such a client (its
# doveadm_port must be set, or it speaks clear text):
#
#   doveadm -o doveadm_ssl=ssl -o doveadm_port=24246 -o doveadm_password=PASSWORD \
#     -o ssl_client_ca_file=/path/to/ca.crt quota get -u user@example.com -S proxy.example.com:24246
listener "tls" {
  address = "0.0.0.0:24246"
  tls {
    # The certificate, then those between it and its authority.
    cert_file = "/etc/doveadm-proxy/tls/proxy.crt"
    key_file  = "/etc/doveadm-proxy/tls/proxy.key"
  }
}

# The usual port, where clients change to TLS before they log in
# (doveadm_ssl=starttls), and only those with a certificate of our own authority.
listener "starttls" {
  address = "0.0.0.0:24245"
  tls {
    mode           = "starttls-required"
    cert_file      = "/etc/doveadm-proxy/tls/proxy.crt"
    key_file       = "/etc/doveadm-proxy/tls/proxy.key"
    client_ca_file = "/etc/doveadm-proxy/tls/ca.crt"
  }
}

client "doveadm" {
  password_file = "/etc/doveadm-proxy/secrets/doveadm"
}

# On the backends:
#
#   service doveadm {
#     inet_listener {
#       port = 24246
#       ssl = yes
#     }
#   }
#
# Their certificates are signed by our own authority and name the host that
# stands in address.
backend_defaults {
  password_file = "/etc/doveadm-proxy/secrets/backends"
  tls {
    mode    = "implicit"
    ca_file = "/etc/doveadm-proxy/tls/ca.crt"
  }
}

shard "s1" {
  backend "mail1" {
    address = "mail1.example.com:24246"
  }
}

shard "s2" {
  # Its certificate does not have the address in it but this name.
  backend "mail2" {
    address = "10.0.1.2:24246"
    tls {
      server_name = "mail2.example.com"
    }
  }
}

shard "s3" {
  # A certificate that it signed itself, for any name: what counts is that its
  # key is this one. TLS comes after STARTTLS, on the ordinary port.
  #
  #   openssl x509 -in CERT -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64
  backend "mail3" {
    address = "10.0.1.3:24245"
    tls {
      mode                 = "starttls"
      insecure_skip_verify = true
      pin                  = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    }
  }
}

route "ring" {}
