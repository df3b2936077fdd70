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
shard "s2" { # WARNING: Shard without users
  backend "b2" {
    address = "10.0.0.2:1"
  }
}
route "ring" {
  shards = ["s1"]
}
