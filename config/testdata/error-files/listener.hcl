listener "a" { # ERROR: No address
}
listener "a" { # ERROR: Second listener "a"
  address = "127.0.0.1:1"
}
listener "b" {
  address = "127.0.0.1:1" # ERROR: Address used twice
}
listener "c" {
  address = "127.0.0.1:2"
  mode    = "0600" # ERROR: mode without a UNIX socket
  client  = "c" # ERROR: No login on a TCP port
}
listener "d" {
  address = "unix:run/socket" # ERROR: Wrong value of address
  mode    = "0688" # ERROR: Wrong value of mode
}
listener "e" {
  address = "/run/socket" # ERROR: Wrong value of address
  mode    = 0600 # ERROR: Wrong value of mode
}
listener "f" {
  address      = "127.0.0.1:70000" # ERROR: Wrong value of address
  max_sessions = -1 # ERROR: Wrong value of max_sessions
}
listener "g" {
  address = "2001:db8::1:24245" # ERROR: Wrong value of address
}
listener "h" {
  address = "10.0.0.256:24245" # ERROR: Wrong value of address
}
listener { # ERROR: No name
  address = "127.0.0.1:3"
}
listener "i" "j" { # ERROR: Second label not allowed
  address = "127.0.0.1:4"
}
listener "two words" { # ERROR: Wrong name
  address = "127.0.0.1:5"
}
# Port 0 is any free port, so two of them are not one address.
listener "k" {
  address = "127.0.0.1:0"
}
listener "l" {
  address = "127.0.0.1:0"
}
listener "m" {
  address = "127.0.0.1:6"
  insecure_clear_text = "yes" # ERROR: Wrong value of insecure_clear_text
  proxy_protocol {} # ERROR: proxy_protocol is not supported by this version
}
listener "n" {
  address = "0.0.0.0:7" # WARNING: Clients on other hosts cannot log in
}
listener "o" {
  address = ":8" # WARNING: Clients on other hosts cannot log in
}
listener "p" {
  address             = "192.0.2.1:9"
  insecure_clear_text = true
}
listener "q" {
  address             = "unix:/run/q"
  insecure_clear_text = true # ERROR: insecure_clear_text on a UNIX socket
}
# What a name stands for is not known here.
listener "r" {
  address = "proxy.example:10"
}
client "c" {
  password = "{PLAIN}x"
}
shard "s" {
  backend "b" {
    address  = "10.0.0.1:1"
    password = "x"
  }
}
