module github.com/pawl-project/pawl/examples/greeter

go 1.24

require golang.org/x/text v0.3.8
