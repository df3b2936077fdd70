listener "main" {
  address = "127.0.0.1:0"
}
client "c" {
  password = "{PLAIN}x"
}
shard "s" {
  backend "b" {
    address  = "127.0.0.1:1"
    password = "x"
  }
}
admin {
  address = "127.0.0.1:9124"
  endpoint "far" {
    address = "192.0.2.1:9124" # ERROR: Admin endpoint open to other hosts
  }
  user "a" { # ERROR: No way to know the user
    role = "viewer"
  }
  user "b" {
    role       = "root" # ERROR: Wrong value of role
    unix_users = ["0"] # ERROR: No UNIX socket
  }
  user "c" {
    role  = "viewer"
    token = "{PLAIN}x" # ERROR: Wrong scheme of a token
  }
  user "d" {
    role        = "admin"
    tls_subject = "CN=d" # ERROR: No endpoint for certificates
  }
}
