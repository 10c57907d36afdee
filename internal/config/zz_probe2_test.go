package config
import ("testing")
func BenchmarkSpaces(b *testing.B) { for b.Loop() { parseYAML("x.yaml", repeat("a ", 64<<10)) } }
