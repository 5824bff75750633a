module github.com/jurat-tls/jurat

go 1.26
