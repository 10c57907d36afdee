package policy

import (
	"fmt"
	"time"

	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/interpreter"
)

// loadZone returns the location of a zone of the IANA database, or of an offset
// like +02:00.
func loadZone(name string) (*time.Location, error) {
	if offset, err := time.Parse("-07:00", name); err == nil {
		_, seconds := offset.Zone()
		return time.FixedZone("", seconds), nil
	}
	if name == "" || name == "Local" {
		// What these mean depends on the machine, or is UTC without saying so.
		return nil, fmt.Errorf("%s names none: write one like \"Europe/Berlin\", \"UTC\" or \"+02:00\"", quote(name))
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("there is no zone %s: write one like \"Europe/Berlin\", \"UTC\" or \"+02:00\"", quote(name))
	}
	return loc, nil
}

// A timeField reads a part of a time, as CEL counts it.
type timeField func(time.Time) int

// timeFields is never written: by CEL's overload. Months, days of the year and
// days of the month of getDayOfMonth count from 0, weekdays from Sunday, 0.
var timeFields = map[string]timeField{
	overloads.TimestampToYearWithTz:                time.Time.Year,
	overloads.TimestampToMonthWithTz:               func(t time.Time) int { return int(t.Month()) - 1 },
	overloads.TimestampToDayOfYearWithTz:           func(t time.Time) int { return t.YearDay() - 1 },
	overloads.TimestampToDayOfMonthZeroBasedWithTz: func(t time.Time) int { return t.Day() - 1 },
	overloads.TimestampToDayOfMonthOneBasedWithTz:  time.Time.Day,
	overloads.TimestampToDayOfWeekWithTz:           func(t time.Time) int { return int(t.Weekday()) },
	overloads.TimestampToHoursWithTz:               time.Time.Hour,
	overloads.TimestampToMinutesWithTz:             time.Time.Minute,
	overloads.TimestampToSecondsWithTz:             time.Time.Second,
	overloads.TimestampToMillisecondsWithTz:        func(t time.Time) int { return t.Nanosecond() / 1e6 },
}

// decorateZones plans calls with a time zone so that the zone is loaded once,
// where CEL would read and parse it for every evaluation.
func decorateZones(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	call, ok := i.(interpreter.InterpretableCall)
	if !ok {
		return i, nil
	}
	field, args := timeFields[call.OverloadID()], call.Args()
	if field == nil || len(args) != 2 {
		return i, nil
	}
	zone, ok := args[1].(interpreter.InterpretableConst)
	if !ok {
		return nil, fmt.Errorf("the time zone of %s must be a literal", call.Function())
	}
	name, _ := zone.Value().(types.String)
	loc, err := loadZone(string(name))
	if err != nil {
		return nil, err
	}
	return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), args, func(values ...ref.Val) ref.Val {
		t, ok := values[0].(types.Timestamp)
		if !ok {
			return types.MaybeNoSuchOverloadErr(values[0])
		}
		return types.Int(field(t.In(loc)))
	}), nil
}
