create table orders (id bigint generated always as identity primary key, item text not null, euros numeric(10, 2) not null);
insert into orders (item, euros) values ('concrete pipe, 2 m', 129.00), ('steel grate', 54.50), ('gravel, 1 t', 31.90);
