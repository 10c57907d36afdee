create table orders (id int primary key, item varchar(40) not null, euros numeric(10, 2) not null);
insert into orders values (1, 'concrete pipe, 2 m', 129.00), (2, 'steel grate', 54.50), (3, 'gravel, 1 t', 31.90);
