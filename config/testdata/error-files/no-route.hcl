listener "main" {
  address = "127.0.0.1:24245"
}
client "c" {
  password = "{PLAIN}x"
}
backend_defaults {
  password = "x"
}
shard "s1" {
  backend "b1" {
    address = "10.0.0.1:1"
  }
}
shard "s2" { # ERROR: No route
  backend "b2" {
    address = "10.0.0.2:1"
  }
}
